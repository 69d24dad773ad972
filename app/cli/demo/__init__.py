"""`sendable demo`: a service of its own, a made-up day of six gateways' receipts, and what came of it."""
