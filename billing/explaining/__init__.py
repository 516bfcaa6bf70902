"""The whole story of one task: from its submission to the line on the invoice. It only reads."""
