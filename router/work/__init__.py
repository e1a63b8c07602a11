"""What keeps the node working: workers, the janitor, the classify child's keeper."""
