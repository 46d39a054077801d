"""`generate` guided by a discriminator."""
