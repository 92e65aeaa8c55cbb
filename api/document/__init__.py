"""What the OpenAPI document says beyond what the routes' own signatures tell: errors, hand-made answers, examples."""
