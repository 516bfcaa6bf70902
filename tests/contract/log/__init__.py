"""What any usage log keeps, whatever it is stored in: `billing.fulfillment.log.UsageLog` says it in words."""
