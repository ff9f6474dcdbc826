"""What would have been: the same agents over a log, without Kafka and without Faust."""
