"""Scores, statistics, plots and page, made from tables."""
