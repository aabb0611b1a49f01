import re, pathlib, time
from tests.signer.outputs.driver import *
from tests.signer.outputs.test_bad_documents import *
def fds(rig):
    d=Path(f"/proc/{front(rig).pid}/fd"); r={}
    for n in os.listdir(d):
        try: r[n]=os.readlink(d/n)
        except FileNotFoundError: pass
    return r
async def test_fd(rig, client):
    await until(lambda: len(assemblers(rig))==3,"x")
    await asyncio.sleep(1)
    a=fds(rig)
    async with rig.client("other") as other:
        check_neighbour((await sign(other,[GOOD]))[0])
    t=time.time()
    for _ in range(30):
        b=fds(rig); new={k:v for k,v in b.items() if a.get(k)!=v}
        if not new: break
        await asyncio.sleep(0.5)
    print(time.time()-t, new)
    os.system(f"ss -tnp | grep {rig.port}")
    print(Path(f"/proc/{assemblers(rig)[0].pid}/limits").read_text())
    print(rig.log.read_text()); assert 0
async def test_twice(rig, client):
    s=await Stream(client, timeout_s=5).open()
    t=time.time()
    for m in [BEGIN, END, BEGIN]:
        try: await s.send(**m); print(time.time()-t,"sent")
        except BaseException as e: print(repr(e))
    for _ in range(3):
        try: print(time.time()-t,await s.call.read())
        except BaseException as e: print(time.time()-t,repr(e))
    print(rig.log.read_text()); assert 0
