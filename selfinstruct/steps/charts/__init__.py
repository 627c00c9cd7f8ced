"""The report's page: what the records add up to, charts, and the HTML around them."""
