"""The exchange's wire: end points, archives, REST."""
