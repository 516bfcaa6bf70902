"""What any increment log keeps, whatever it is stored in: `billing.sinks.sync.log.IncrementLog` says it in words."""
