"""Measure a running server as its clients see it.

The clock is the client's: network, queueing, tokenization and the server's own packing of events are
included. Speeds of this folder are therefore never compared with those of the measure stage, which calls an
engine directly."""
