"""What we write for the user: pages that are ours as a whole and say so with their own checksum (`lv_sum`)."""
