"""The networks of the particle tasks: raw components in and out, or equivariant by construction."""
