"""Deactivation files: taken in, judged, acted on; fetched every day from those who have them."""
