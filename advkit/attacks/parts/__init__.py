"""What several attacks have in common, or the norms of one: steps, random moves, boundaries, schedules."""
