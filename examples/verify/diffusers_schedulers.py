"""A scheduler of diffusers with the options that you use: which equations does it hold, and where are its habits?

    python examples/verify/diffusers_schedulers.py
    minidit verify diffusers                                    (everything that the installed version can be asked)
"""

from diffusers import DDIMScheduler, DDPMScheduler

import minidit as md

OPTIONS = (
    DDPMScheduler(clip_sample=False, timestep_spacing="trailing"),
    DDIMScheduler(clip_sample=True, set_alpha_to_one=False, beta_schedule="squaredcos_cap_v2"),
)


def main():
    reports = []
    for scheduler in OPTIONS:
        reports.append(md.verify.check(md.verify.diffusers.scheduler(scheduler)))
        print(f"{type(scheduler).__name__}: {reports[-1].summary}")
    print(reports[-1])
    return reports


if __name__ == "__main__":
    main()
