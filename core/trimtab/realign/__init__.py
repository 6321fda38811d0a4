"""Learned and calibrated ways back: SOMF's masks and Antidote's pruning."""
