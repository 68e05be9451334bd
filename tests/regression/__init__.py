"""Tests that notice when something has become slower or larger: exact counts, and times over a frozen baseline."""
