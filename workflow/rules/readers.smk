# Readers and other products: index tests whose answers come as a table.
