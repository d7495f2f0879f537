"""Sockets and time, on asyncio."""
