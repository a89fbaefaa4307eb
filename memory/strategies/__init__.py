"""Ways of reminding the policy of a long conversation, one to a file. Each makes whole prompts within a budget."""
