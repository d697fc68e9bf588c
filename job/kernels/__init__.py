"""The few loops that must be fast, each beside its plain reference."""
