class A:
    async def b(self):
        pass
def c(): x