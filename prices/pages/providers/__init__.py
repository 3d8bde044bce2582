"""The page of the providers: which can be asked, what is left of their budgets, and for whom it goes."""
