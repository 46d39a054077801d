"""What language models say about texts: likelihood under a given one, and under small ones trained for the purpose."""
