"""What is remembered: conversations and feedback. Knows no model, no trainer and no page."""
