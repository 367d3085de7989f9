"""What the synthetic corpus simulates: people (`anatomy`), their EMG (`signals`), and what they do (the others)."""
