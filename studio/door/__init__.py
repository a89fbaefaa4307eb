"""The plain HTTP door: the studio in OpenAI's shape beside the page, with a receipt for every reply and feedback for
every receipt.
"""
