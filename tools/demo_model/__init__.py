"""Makes the bundled demo model: draws its data, trains it, exports it, and measures it through the product."""
