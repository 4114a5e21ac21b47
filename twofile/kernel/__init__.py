"""The model as a kernel: processes that survive, calls of tools that are watched, a window that is working memory."""
