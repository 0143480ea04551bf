"""n4a_fast inside other programs: nirs4all's store replaced, its workspaces brought over."""
