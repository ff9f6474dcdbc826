"""What crosses a topic: records, the topic catalogue, Avro."""
