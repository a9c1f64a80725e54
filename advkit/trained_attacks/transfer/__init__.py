"""Copies of classifiers that only answer: trained on the answers, under a limit of queries."""
