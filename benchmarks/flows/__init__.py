"""The flows that measure: one point, a sweep of them, a comparison of two result sets."""
