"""What was counted, what failed, and units for people."""
