"""Beginning with the weights of a file: read in any known form, copied where they fit, each tensor's fate said."""
