"""Commands of fsseg as processes of their own, here or on a cluster: the only package that starts processes of fsseg."""
