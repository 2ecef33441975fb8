"""Describe the device: drivers, energy, bandwidth, conditions."""
