"""What any sink of increments keeps, whatever it reports to: `billing.sinks.sink.MeterSink` says it in words."""
