"""From clusters to labels: what people hand on."""
