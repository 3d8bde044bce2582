"""The pages for people: what GET / and its neighbours show."""
