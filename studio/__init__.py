"""What a visitor touches: the served policy, the chat, the feedback, the page."""
