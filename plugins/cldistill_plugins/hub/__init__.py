"""Collections on the Hugging Face hub: uploaded with their card."""
