"""How it runs: Faust apps, clients of outside services, delivery, telemetry."""
