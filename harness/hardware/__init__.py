"""What this machine can do at most, measured through each framework: the card that bounds every throughput."""
