"""A run measured on a real device: its memory, its time, its traffic; and what was recorded."""
