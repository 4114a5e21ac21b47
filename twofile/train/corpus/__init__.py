"""Texts: from files and hubs, through filters and de-duplication, to documents and a data card."""
