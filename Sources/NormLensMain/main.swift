print("normlens")
