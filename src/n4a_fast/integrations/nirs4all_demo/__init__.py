"""The demo through nirs4all itself: one sweep, its leaderboard, the share of time that its store takes."""
