"""What a model answers: prompt sets, targets, judges, statistics, and what they add up to."""
