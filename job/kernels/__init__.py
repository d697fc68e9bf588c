"""The few generic loops that must be fast, each beside its plain reference."""
