"""Policies: what answers a chat. Import the module you need; nothing is loaded by importing the package."""
