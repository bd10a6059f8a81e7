a=b
# def no
x = [1]
